"""Plots as SVG, without a plotting library: a chart is a grid of panels with one legend."""
