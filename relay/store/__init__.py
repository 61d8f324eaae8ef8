"""The store: tables by noun, the journal, sealing, and the ledger that proves each row; SQLite and PostgreSQL.

SQL lives here and nowhere else. Business rules belong to `relay.service`; nothing here decides about a call.
"""
