"""Reports for people and authorities: search of records, traceback, evidence, exports, daily reports, batches.

Every report that shows a real number is in the audit log first (`relay.reports.disclosure`).
"""
