"""What leaves the store for people and authorities: records, traceback, evidence, exports, daily reports, batches.

Search of call records too. Whatever shows a real number is in the audit log first (`relay.reports.disclosure`).
"""
