"""A small pipeline that receives callbacks for finished uploads and assesses the videos.

hooks.py verifies and reads a callback, store.py stores jobs and results, assess.py decodes a video, pages.py makes the
HTML pages, and app.py is the web service.
"""
