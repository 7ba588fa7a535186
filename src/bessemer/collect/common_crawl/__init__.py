"""Common Crawl: whole WARC or WET files of a crawl, or single pages found through its index.

`download` fetches files and resumes them, `index` asks the CDX server, `captures` fetches single records
by byte range; `client` holds what they share: one request at a time, back-off, and honest naming.
"""
