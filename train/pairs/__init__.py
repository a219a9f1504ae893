"""What is seen: pairs from the database and from data sets, their reversal, draws."""
