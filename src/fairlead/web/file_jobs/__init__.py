"""Files scored over HTTP: `POST /jobs` keeps an order in a directory, and a process beside the server carries it out.

Any worker answers for any job, since all there is to know of one is in files (`directory`), each of which one side
writes: a worker the order and the wish to cancel it, the runner what has become of it, `fairlead score` how far it is.
One runner process for each service (`runner`), kept running by the server (`keeper`), starts a `fairlead score` process
for each job (`scoring`); scoring itself is another mode, and nothing of it is imported. `roots` says which files may
be read and written.
"""
