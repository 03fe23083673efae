"""What this domain can take, and how much of that it tells.

`catalogue` what is offered · `capacity` the books · `holding` one hold, top to bottom · `summary`
nodes condensed to cells · `advert` the signed word to each peer.
"""
