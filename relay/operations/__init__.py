"""Operations: what the API, the commands and the console do, a file for each noun, each operation declared once.

An operation has a request and a response shape, and calls the rules of `relay.service`. It knows no HTTP and no command
line: the doors read its declaration (`relay.operations.operation`).
"""
