-- Where a host lends its drives to servers on others, as address:port; null if it does not.
ALTER TABLE hosts ADD COLUMN portal TEXT;
-- How the drive is lent for this claim, as the internal wire's JSON; null if its holder is on the
-- drive's own host.
ALTER TABLE claims ADD COLUMN lent TEXT;
