"""Reducers: the functions that fold events into state, and what runs them."""
