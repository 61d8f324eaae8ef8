"""The store: tables by noun, the journal, sealing, and the ledger that proves each row; SQLite and PostgreSQL.

SQL belongs here. Rules of the service are in `relay.service`; of calls only the caps that PostgreSQL counts are here.
"""
