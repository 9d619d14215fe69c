-- What an operator should look at of an array, as its host says, as the internal wire's JSON; null if nothing.
ALTER TABLE arrays ADD COLUMN warnings TEXT;
