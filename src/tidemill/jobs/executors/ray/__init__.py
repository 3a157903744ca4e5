"""Steps on the nodes of a Ray cluster (extra ``ray``). Nothing here loads Ray before it is used."""
