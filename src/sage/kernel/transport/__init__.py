"""How bytes get from one part of a running job to another.

Here live the contract of a message queue (`queue_contract`) and what fulfils it: `in_process`
within one process, `sage_queue` between the processes of one machine, through shared memory. A
queue is chosen by kind with `create_queue`. `object_codec` turns objects into messages and back,
`plain_codec` plain values, which is quicker.

Not here: what the messages mean (records, barriers, service calls), who creates which queue, and
transports between machines.
"""
