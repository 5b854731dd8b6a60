"""The command line: ``python -m hybridjit`` and the script ``hybridjit``. Nothing else imports it."""
