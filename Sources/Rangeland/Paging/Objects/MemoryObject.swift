// SPDX-License-Identifier: Apache-2.0
//
// What a VMA maps.

struct MemoryObject: ~Copyable {
  /// Linux: `anon_vma` with more than one space, or created by a fork. Guarded by the latch.
  var isForked = false
}
