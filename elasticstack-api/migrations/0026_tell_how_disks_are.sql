-- How the disks of an array are, as its host says, as the internal wire's JSON; null if it does not.
ALTER TABLE arrays ADD COLUMN disks TEXT;
