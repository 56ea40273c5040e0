"""The parts of ``benchmarks/speed.py``, one noun per file; see there for what is measured and how."""
