"""Defects of libraries and disks, as `sitecustomize` of every Python process."""

DEFECT = """
import os, signal, time
import simplejpeg

sound = simplejpeg.decode_jpeg

def decode_jpeg(data, *args, **kwargs):
    if b"CRASH-ME" in data:
        os.kill(os.getpid(), signal.SIGSEGV)
    if b"EXIT-ME" in data:
        os._exit(3)
    if b"STOP-ME" in data:
        time.sleep(600)
    return sound(data, *args, **kwargs)

simplejpeg.decode_jpeg = decode_jpeg
"""
# In place of a disk, or an uplink, that takes its time with a finished shard.
SLOW_DISK = """
import os, time

fsync = os.fsync

def slow(descriptor):
    if os.readlink(f"/proc/self/fd/{descriptor}").endswith(".tfrecord"):
        time.sleep(8)
    fsync(descriptor)

os.fsync = slow
"""
