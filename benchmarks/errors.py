"""What can go wrong, in words."""

from __future__ import annotations


class Unavailable(Exception):
    """Something that this machine lacks; says what, and where it comes from."""


class MeasurementFailed(Exception):
    """A program that was to measure did not end well; says which, how, and what it wrote."""
