// SPDX-License-Identifier: Apache-2.0
//
// What an operation takes out of the page tables: the frames, and who may still have them cached.
//
// Guarantee: a frame is let go only after every section that could use it has ended.
// Mechanism: the operation adds entries under page-table latches; `shootdown()` runs before the range
//   is unlocked, `release()` afterwards. A list that is full does both for what it holds, between two
//   latches: the entries are gone from the tables already.
// Cost: nothing remote when nobody else cached; no allocation (the frame numbers sit in a buffer of
//   the thread's frame cache).
// Source: Linux mm/mmu_gather.c, `struct mmu_gather`.

import Synchronization

struct FrameDropList: ~Copyable {
  let arena: UnsafeMutablePointer<FrameArena>
  private let context: Context
  private let accessors: AccessorTable
  /// The accessor of the calling thread in this space, which needs no waiting.
  let own: AccessorRef?

  private var frames: UnsafeMutablePointer<UInt32>?
  private var count = 0

  /// Span of the entries that `own` cached: empty if `ownEnd` is 0.
  private var ownStart: Address = .max
  private var ownEnd: Address = 0
  /// Up to four other accessors, 0 = free slot; more are `isSeveral`.
  private var others: (UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0)
  private var isSeveral = false

  /// Resident pages taken out, by `PageKind`, since the list was made: the caller's rss changes.
  private(set) var anonymousPages = 0
  private(set) var filePages = 0
  private(set) var sharedMemoryPages = 0
  /// All of them.
  @inline(__always) var residentPages: Int64 {
    Int64(anonymousPages + filePages + sharedMemoryPages)
  }

  init(
    _ arena: UnsafeMutablePointer<FrameArena>, _ accessors: AccessorTable, _ context: Context
  ) {
    self.arena = arena
    self.context = context
    self.accessors = accessors
    own = accessors.existingAccessor(context)
  }

  #if RANGELAND_CHECKS
    // Only here: a list with a deinitialiser is copied to it.
    deinit {
      precondition(
        frames == nil && ownEnd == 0 && !hasOthers,
        "FrameDropList: dropped without shootdown and release")
    }
  #endif

  /// Entries that `add` certainly has room for.
  @inline(__always) var room: Int { FrameCache.dropCapacity - count }

  /// Whether somebody has to be told before the range may be unlocked.
  @inline(__always) var needsShootdown: Bool { ownEnd != 0 || hasOthers }

  @inline(__always) private var hasOthers: Bool { isSeveral || others.0 != 0 }

  /// Takes over an entry that was extracted from `address`, with the reference to its frame.
  @inline(__always)
  mutating func add(_ entry: PageTableEntry, at address: Address) {
    note(entry, at: address)
    guard !entry.isZeroPage else { return }
    switch entry.kind {
    case .anonymous: anonymousPages &+= 1
    case .file: filePages &+= 1
    case .sharedMemory: sharedMemoryPages &+= 1
    case .uncounted: break
    }
    addFrame(entry.frame)
  }

  /// Takes over one reference to a frame, without counting a page.
  @inline(__always)
  mutating func addFrame(_ frame: FrameNumber) {
    if frames == nil { takeBuffer() }
    assert(count < FrameCache.dropCapacity, "FrameDropList: full")
    frames.unsafelyUnwrapped[count] = frame
    count &+= 1
  }

  /// Notes who cached an entry that lost rights.
  @inline(__always)
  mutating func note(_ entry: PageTableEntry, at address: Address) {
    let by = entry.cachedBy
    if by != 0 { note(by, address.pageStart) }
  }

  private mutating func note(_ by: UInt64, _ page: Address) {
    if by == PageTableEntry.cachedBySeveral || by == own?.pointee.id {
      ownStart = min(ownStart, page)
      ownEnd = max(ownEnd, page + Address.pageSize)
      if by == PageTableEntry.cachedBySeveral { isSeveral = true }
      return
    }
    if isSeveral { return }
    if others.0 == by || others.1 == by || others.2 == by || others.3 == by { return }
    if others.0 == 0 {
      others.0 = by
    } else if others.1 == 0 {
      others.1 = by
    } else if others.2 == 0 {
      others.2 = by
    } else if others.3 == 0 {
      others.3 = by
    } else {
      isSeveral = true
    }
  }

  @inline(never)
  private mutating func takeBuffer() {
    let depth = context.pointee.frames.dropBuffersInUse
    precondition(depth < FrameCache.dropDepth, "FrameDropList: too many at a time in one thread")
    context.pointee.frames.dropBuffersInUse = depth + 1
    frames = context.pointee.frames.dropBuffers + depth * FrameCache.dropCapacity
  }

  /// Returns when no thread uses or can use what was added or noted. Before the range is unlocked; may
  /// be called under a page-table latch, not in a section.
  @inline(__always)
  mutating func shootdown() {
    if needsShootdown { shootdownSlow() }
  }

  @inline(never)
  private mutating func shootdownSlow() {
    LockOrder.assertNoLeafHeld("a wait for accessors")
    if ownEnd != 0 {
      own?.forget(ownStart, ownEnd)
      ownStart = .max
      ownEnd = 0
    }
    if isSeveral {
      accessors.shootAll(but: own)
    } else if others.0 != 0 {
      accessors.shoot(others.0)
      if others.1 != 0 { accessors.shoot(others.1) }
      if others.2 != 0 { accessors.shoot(others.2) }
      if others.3 != 0 { accessors.shoot(others.3) }
    }
    isSeveral = false
    others = (0, 0, 0, 0)
  }

  /// Lets the frames go, and the buffer that they sat in. After the shootdown, and best after the range was
  /// unlocked. Every list ends with this; it may be filled again.
  @inline(__always)
  mutating func release() {
    assert(!needsShootdown, "FrameDropList: released before the shootdown")
    guard let buffer = frames else { return }
    // Backwards: the frames of ascending pages, mostly ascending themselves, come to lie on the thread's stack so
    // that they are given out ascending again. A processor fills pages with zeros 2.5 times as fast in that order.
    for i in (0..<count).reversed() { arena.release(buffer[i], context) }
    count = 0
    frames = nil
    context.pointee.frames.dropBuffersInUse = context.pointee.frames.dropBuffersInUse - 1
  }

  /// Makes room for `entries` more. Not under a page-table latch that the frames' release may need; the
  /// frames added before are let go.
  @inline(__always)
  mutating func makeRoom(_ entries: Int) {
    if room < entries {
      shootdown()
      release()
    }
  }
}
