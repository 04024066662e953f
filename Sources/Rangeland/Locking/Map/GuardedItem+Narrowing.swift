// SPDX-License-Identifier: Apache-2.0
//
// For each guarded item: how it went from the whole space to a narrow range, and why that is safe.

extension GuardedItem {
  /// The text of the lock map under the item's heading.
  public var narrowing: String {
    switch self {
    case .layout:
      """
      Linux changes the VMA tree under `mmap_lock` for writing, the whole space. Here an operation locks the pages it
      works on. That is enough because records are immutable: a VMA that is split or merged is replaced by new records,
      and a reader of its other pages keeps a true one. Whoever publishes holds the leaf latch and reads the neighbours
      again there; only the two outer records can have changed, because the hold freezes what lies inside.
      """
    case .gapSearch:
      """
      Linux searches and inserts under `mmap_lock`. Here the search reads without locks; the choice is checked and
      reserved in one step under the leaf latch. The range lock is only tried there: if it is taken, a reservation keeps
      the gap while the operation waits without a latch.
      """
    case .vmaFlags:
      """
      Written once, when a record is made; a change of rights publishes a new record. A fault that holds its page for
      reading therefore sees the flags of one instant, and `protect` of that page cannot run beside it.
      """
    case .vmaOffset:
      """
      Written once, when a record is made: pieces of a split get theirs before they are published.
      """
    case .anonymousIdentity:
      """
      The one attribute that a fault changes. It is set by publishing a record that differs in nothing else, under the
      leaf latch, once: a fault that holds one page for reading may do that although others fault elsewhere in the same
      VMA, because whoever comes second finds the first one's identity there. A fork holds the whole space, as Linux does.
      """
    case .pageProtection:
      """
      `protect` holds its pages for writing, so no fault can install old rights behind its back; accessors that read page
      tables without a lock are told by the shootdown before the hold ends.
      """
    case .pageTableEntry:
      """
      Each entry changes under its table's latch. The range decides who may change it: faults hold the page for reading
      (two of them meet at the latch), `unmap` and `protect` hold it for writing. `dontNeed` holds it for reading: a page
      is there or gone, and both are right answers for a concurrent access.
      """
    case .pageTableShape:
      """
      Linux frees tables under `mmap_lock`, and khugepaged under more. Here a table is made and freed under its parent's
      latch, marked stray, and given back by epochs; whoever installs looks at the mark under the table's own latch.
      Tables may therefore be freed although a fault in the same 2 MiB, outside the range, is on its way to it.
      """
    case .reverseMap:
      """
      Never under `mmap_lock`: Linux has `i_mmap_rwsem` and the anon_vma lock. Here each object has a latch for its set of
      mappings; a record's use of a mapping is a counter, so splits and merges do not come here.
      """
    case .objectPages:
      """
      Linux: the page cache's own lock. Here a latch in the object, taken with no page-table latch held.
      """
    case .memoryPolicy:
      """
      A private mapping's policy is a flag of its VMA. That of shared memory belongs to the object's pages, as in Linux
      (`mpol_shared_policy`), so that all who map it see it: a latch of the object, whatever range the caller holds.
      """
    case .markers:
      """
      Linux changes them under `mmap_lock` for reading and a spinlock, `arg_lock`, for pairs. Here the whole space is held
      for writing, because a new heap must not meet a moving break; readers take no lock, and read again when markers
      changed under them.
      """
    case .opaqueWord:
      """
      Linux had one such word, `bd_addr`, under `mmap_lock` for writing. It changes beside no operation here either.
      """
    case .contextBase:
      """
      Linux writes `mm->context.vdso` under `mmap_lock` for writing. Here a move of the mapping holds its old and its new
      place for writing when it writes the word, and inserting holds the place for reading, and looks whether the mapping
      still stands there.
      """
    case .accounting:
      """
      Linux changes these under `mmap_lock` for writing, which is what would force every mapping call to share a line.
      Here each thread adds to its own credit; sums are exact when nobody runs, and a limit is decided on exact totals.
      """
    case .residency:
      """
      Linux: per-CPU counters without `mmap_lock`. The same here, by thread.
      """
    case .futureLock:
      """
      Linux reads and writes `def_flags` under `mmap_lock` for writing. Here `lockAllMemory` holds the whole space for
      writing, so a new mapping, which holds its own pages for writing when it reads the flags, comes before it or after
      it and never between its two halves, what is mapped and what will be. A mapping that reads them before it has its
      range, because it has to look for a gap first, reads them again then.
      """
    }
  }
}
