"""A small pipeline that hears of finished uploads and assesses the videos.

hooks.py reads a callback, store.py keeps it, assess.py looks at the video, app.py ties them together, pages.py shows.
"""
