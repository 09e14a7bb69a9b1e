"""Test kits for those who write plugins; our own parts pass them too.

Each kit is a class of pytest tests with a fixture left open: `modelyard.conformance.store.StoreSuite`. For those that
need a Postgres, `modelyard.conformance.postgres.PostgresServer` starts one.
"""
