"""APIs of other providers, so that programs written for them move here by an endpoint and a key.

One so far: Alibaba Cloud's dyplsapi 2017-05-25. Here belong its signatures, its names, times and error codes, and its
actions, each of which calls the function of `relay.service` that the API of relay700 calls. No rule is made here, and
nothing of `relay.api` is known. docs/ALIBABA.md compares field by field.
"""
