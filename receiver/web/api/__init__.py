"""The JSON API, with one module for each resource."""
