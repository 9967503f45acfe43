"""Tests of search.studies.cluster."""
