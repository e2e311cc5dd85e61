"""Connections that are forwarded from this machine into a target's network."""
