"""From a run to the app: releases that are published by name and version, fetched, listed and compared."""
