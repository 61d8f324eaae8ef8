"""What a store in an SQLite file does differently: how its journal writes, how a call is looked up."""
