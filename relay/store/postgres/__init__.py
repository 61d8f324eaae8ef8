"""What a store on a PostgreSQL server does differently: connections, journal, look-up with caps, and its nodes."""
