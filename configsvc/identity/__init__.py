"""Who somebody is: certificates, tokens, passwords; and the authority that issues certificates.

A map of the room. Judging: ``names`` (the grammar), ``certificate`` (leaf to identity), ``bundles``
(anchors), ``tls_files`` (our own files), ``tokens``, ``passwords``. Issuing: ``profiles`` (what a
kind's leaf looks like), ``authority`` (the one function that signs), ``requests`` (CSRs), ``pki``
(a directory of it all), ``files``. ``member_ids`` derives ids as etcd does.
"""
