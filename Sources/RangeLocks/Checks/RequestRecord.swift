// SPDX-License-Identifier: Apache-2.0
//
// A hold, or a request that waits, as checked builds remember it; and whose it is.

#if RANGELOCKS_CHECKED
  import CRangeland
  import Synchronization

  /// One range of one request.
  ///
  /// In a list of `RequestTable`, and protected by its latch, but for what is set before it is inserted: `shard`, `lock`,
  /// `lockClass`, `site`, `stamp`, `sibling`, `upgraded`.
  @usableFromInline
  struct RequestRecord {
    enum State: UInt8 {
      case holding
      case waiting
      /// Beside the record of the hold that becomes a writer.
      case upgrading
    }

    var next: UnsafeMutablePointer<RequestRecord>?
    var previous: UnsafeMutablePointer<RequestRecord>?
    /// The next range of the same request.
    var sibling: UnsafeMutablePointer<RequestRecord>?
    /// Of a request to become a writer: the hold.
    var upgraded: UnsafeMutablePointer<RequestRecord>?
    /// Who asked; `RequestOwner.nobody` once the hold is transferable.
    var owner: UInt64
    /// The list it is in.
    var shard = 0
    var lock: UnsafeMutableRawPointer
    var lockClass: UInt8
    var state = State.holding
    /// Whether the wait ends by itself: there is a deadline, or it was cancelled.
    var canGiveUp = false
    var piece: RangeRequest
    /// The place in the queue, see "Stamps" in docs/range-lock.md.
    var stamp: UInt64 = 0
    let site: CallSite

    init(
      owner: UInt64, lock: UnsafeMutableRawPointer, lockClass: UInt8, piece: RangeRequest,
      site: CallSite
    ) {
      self.owner = owner
      self.lock = lock
      self.lockClass = lockClass
      self.piece = piece
      self.site = site
    }

    /// Whether this request, which waits, waits for `other` (as far as the two tell). It is no promise that `other` goes on.
    func waits(for other: UnsafeMutablePointer<RequestRecord>) -> Bool {
      if other.pointee.lock != lock || other == upgraded { return false }
      if !other.pointee.piece.range.overlaps(piece.range)
        || !other.pointee.piece.mode.conflicts(with: piece.mode)
      {
        return false
      }
      switch (state, other.pointee.state) {
      case (.holding, _), (_, .upgrading): return false
      case (_, .holding): return true
      // An upgrade waits for nobody who waits.
      case (.upgrading, .waiting): return false
      case (.waiting, .waiting):
        return other.pointee.owner != owner && other.pointee.stamp < stamp
      }
    }

    /// What a person wants to know.
    var description: String {
      "\(piece.range) \(piece.mode == .write ? "for writing" : "for reading") at \(site)"
    }
  }

  extension CallSite: CustomStringConvertible {
    @usableFromInline var description: String { "\(fileID):\(line)" }
  }

  /// Who asks: the running task, or the thread if there is none.
  enum RequestOwner {
    static let nobody: UInt64 = 0
    private static let threadWord: UInt32 = 6
    private static let threads = Atomic<UInt64>(0)

    /// Never used again by another thread or task: an even number for a task, an odd one for a thread.
    static var current: UInt64 {
      if let task = withUnsafeCurrentTask(body: { $0.map(number) }) { return task << 1 + 2 }
      let own = rl_tls_get(threadWord)
      if own != 0 { return own }
      let new = threads.wrappingAdd(1, ordering: .relaxed).newValue << 1 | 1
      rl_tls_set(threadWord, new)
      return new
    }

    private static func number(_ task: UnsafeCurrentTask) -> UInt64 {
      // The handle is the address of the task and nothing else.
      taskNumber(unsafeBitCast(task, to: UnsafeRawPointer.self))
    }

    static func description(_ owner: UInt64) -> String {
      owner & 1 == 0 ? "task \(owner >> 1 - 1)" : "thread \(owner >> 1)"
    }
  }

  /// The number that the runtime gives to each task: addresses are used again, numbers are not.
  @_silgen_name("swift_task_getJobTaskId")
  private func taskNumber(_ task: UnsafeRawPointer) -> UInt64
#endif
