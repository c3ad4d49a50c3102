"""The few core operators; everything else of the API is composed from them.

An operator is a frozen description that can be pickled. A *record operator* writes its part of a
fused loop (`write`); a *batch operator* makes an object that takes whole batches. Neither runs
anything itself: that is `sage.kernel.runtime`.
"""
