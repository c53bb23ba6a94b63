"""Checks of a deployment: each tells what is good, and what to do where something is not."""
