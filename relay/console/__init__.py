"""The console: pages for people, at /console of the API's listener. A page is a request to the API, shown.

Here: sessions, pages, templates, static files, words in two languages. Not here: the store, and what a key may do. A
page gets its data from the API within this process, with the key that logged in, so the API's rules hold.
"""
