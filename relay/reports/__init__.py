"""What leaves the store for people and authorities: traceback, evidence, exports, daily reports and batches.

Whatever shows a real number is in the audit log first (`relay.reports.disclosure`).
"""
