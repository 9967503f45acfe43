"""What times converted models on a device: Python 3.8, NumPy and one inference engine are enough.

``tools/profile_latency.py --prepare FOLDER`` packs these modules into one script,
``FOLDER/measure.py``, which imports nothing else of the project; so imports are relative here. The
profiler itself measures with them too.
"""
