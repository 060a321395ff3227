"""What a run decided and measured, written down: report.json, report.html, labels.txt, manifest.json and a table."""
