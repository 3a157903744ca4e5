"""What was found, for people: one self-contained HTML file.

`tidemill.report.html.write_report` writes it from `tidemill.report.facts.ReportFacts`.
"""
