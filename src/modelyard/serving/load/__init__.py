"""An open-loop load on an endpoint: when requests are due is drawn beforehand, and a slow server changes nothing in it.

`requests` makes the bytes, `client` sends them when they are due, `knee` looks for the highest rate that holds,
`watched` sees what the processes of the server take, `spoiled` is a server whose clock and model can be made wrong.
"""
