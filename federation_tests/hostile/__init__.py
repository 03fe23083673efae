"""Every lie of the session contract, told against real servers, and how it ends.

`lie` the marker that each test carries · `lying` how an honest object is made to lie · `table` the
page that is generated from the markers (`python -m federation_tests.hostile.table`).
"""
