// SPDX-License-Identifier: Apache-2.0
//
// The orders in which locks are taken, by the names of the locks: what checked builds remember.
//
// Guarantee: who asks, without a deadline, for a range of a named lock while it holds one of another is told if somebody
// did so the other way around before, at any time, directly or by way of further locks; also if it takes ranges of
// one lock upwards and downwards, a lock while it holds another one of its name, or a key once more.
// Mechanism: a graph of classes, an edge from what is held to what is asked for, with the call sites that were first.
// An edge that would close a circle is reported instead.
// Cost: one look at the caller's holds for each request of a named lock; a search for each new edge. At most 63 names;
// 264 KiB of reserved addresses, of which a page is touched for each class that is held.
// Lock order inside: one latch, a leaf.
// Source: the kernel's lockdep, in behaviour only.

#if RANGELOCKS_CHECKED
  import CRangeland
  import Synchronization

  struct LockOrderGraph: @unchecked Sendable {
    // Sendable: immutable addresses; what is there is atomic or latched.
    static let shared = LockOrderGraph()

    /// One more than there are names: class 0 is no class.
    static let classCount = 64

    /// Where an edge was first seen.
    private struct Edge {
      let held: CallSite
      let asked: CallSite
    }

    private let latch: UnsafeMutablePointer<Latch>
    /// Protected by the latch, as the names.
    private let nameCount: UnsafeMutablePointer<Int>
    /// By class.
    private let nameOfClass: UnsafeMutablePointer<StaticString>
    /// A word for each class that was held: bit c, class c was asked for then. Set under the latch; its own bit means
    /// ranges above the held one. Releases the edge to who reads the bit.
    private let asked: UnsafeMutablePointer<Atomic<UInt64>>
    /// Bit c: ranges of one lock of class c were asked for below a held one.
    private let downwards: UnsafeMutablePointer<Atomic<UInt64>>
    /// By held class and asked class; the edge of a class downwards is in row 0. Set before the bit.
    private let edges: UnsafeMutablePointer<Edge>

    private init() {
      let edgeBytes = Self.classCount * Self.classCount * MemoryLayout<Edge>.stride
      let nameBytes = Self.classCount * MemoryLayout<StaticString>.stride
      guard let fixed = rl_reserve(4096), let names = rl_reserve(nameBytes),
        let edges = rl_reserve(edgeBytes)
      else { fatalError("RangeLocks: no address space for \(edgeBytes) bytes of checks") }
      latch = fixed.assumingMemoryBound(to: Latch.self)
      nameCount = (fixed + 64).assumingMemoryBound(to: Int.self)
      downwards = (fixed + 128).assumingMemoryBound(to: Atomic<UInt64>.self)
      asked = (fixed + 256).assumingMemoryBound(to: Atomic<UInt64>.self)
      nameOfClass = names.assumingMemoryBound(to: StaticString.self)
      self.edges = edges.assumingMemoryBound(to: Edge.self)
    }

    // MARK: Names

    /// The class of a name: equal names are one class. Traps when there are too many.
    func lockClass(named name: StaticString) -> UInt8 {
      latch.pointee.lock()
      defer { latch.pointee.unlock() }
      let text = "\(name)"
      for known in 1..<(nameCount.pointee + 1) where "\(nameOfClass[known])" == text {
        return UInt8(known)
      }
      precondition(
        nameCount.pointee + 1 < Self.classCount,
        "RangeLock: at most \(Self.classCount - 1) names of locks: locks of one kind share one")
      nameCount.pointee += 1
      (nameOfClass + nameCount.pointee).initialize(to: name)
      return UInt8(nameCount.pointee)
    }

    // MARK: Checking

    /// `range` of a lock of class `new` is about to be asked for at `site` by who holds `held`.
    func check(
      _ new: UInt8, _ lock: UnsafeMutableRawPointer, _ range: KeyRange, _ site: CallSite,
      _ held: [RequestRecord]
    ) {
      for hold in held {
        let isSame = hold.lock == lock
        if isSame, hold.piece.range.overlaps(range) {
          reportNested(new, hold, range, site)
        } else if isSame {
          add(new, isUpwards: range.first > hold.piece.range.last, hold, site)
        } else if hold.lockClass == new {
          reportTwoOfOneName(new, hold, site)
        } else if hold.lockClass != 0 {
          add(from: Int(hold.lockClass), to: Int(new), hold, site)
        }
      }
    }

    private func add(from: Int, to: Int, _ hold: RequestRecord, _ site: CallSite) {
      if asked[from].load(ordering: .relaxed) >> UInt64(to) & 1 != 0 { return }
      latch.pointee.lock()
      defer { latch.pointee.unlock() }
      if let path = path(from: to, to: from) { reportOrder(path, hold, site) }
      (edges + from * Self.classCount + to).initialize(to: Edge(held: hold.site, asked: site))
      asked[from].bitwiseOr(1 << UInt64(to), ordering: .relaxed)
    }

    /// Ranges of one lock, one after the other.
    private func add(_ new: UInt8, isUpwards: Bool, _ hold: RequestRecord, _ site: CallSite) {
      let bit = UInt64(1) << UInt64(new)
      let (up, down) = (asked + Int(new), downwards)
      if (isUpwards ? up : down).pointee.load(ordering: .relaxed) & bit != 0 { return }
      latch.pointee.lock()
      defer { latch.pointee.unlock() }
      let own = edges + Int(new) * Self.classCount + Int(new)
      if (isUpwards ? down : up).pointee.load(ordering: .relaxed) & bit != 0 {
        let other = isUpwards ? (edges + Int(new)).pointee : own.pointee
        reportDirections(new, isUpwards, hold, site, other.held, other.asked)
      }
      (isUpwards ? own : edges + Int(new)).initialize(to: Edge(held: hold.site, asked: site))
      (isUpwards ? up : down).pointee.bitwiseOr(bit, ordering: .relaxed)
    }

    /// Classes from one to another along edges; nil if there is no way. Needs the latch.
    private func path(from start: Int, to end: Int) -> [Int]? {
      var before = [Int](repeating: -1, count: Self.classCount)
      before[start] = start
      var open = [start]
      while let current = open.popLast() {
        if current == end {
          var path = [end]
          while let first = path.first, first != start { path.insert(before[first], at: 0) }
          return path
        }
        var rest = asked[current].load(ordering: .relaxed)
        while rest != 0 {
          let next = rest.trailingZeroBitCount
          rest &= rest - 1
          if before[next] >= 0 { continue }
          before[next] = current
          open.append(next)
        }
      }
      return nil
    }

    // MARK: Telling

    private func name(_ lockClass: some BinaryInteger) -> String {
      "\"\(nameOfClass[Int(lockClass)])\""
    }

    private func reportOrder(_ path: [Int], _ hold: RequestRecord, _ site: CallSite) -> Never {
      var lines = [
        "RangeLock: lock order: \(name(path[0])) is asked for at \(site)",
        "  while \(name(path[path.count - 1])) is held since \(hold.site);",
        "before, the order was the other one:",
      ]
      for (held, asked) in zip(path, path.dropFirst()) {
        let edge = edges[held * Self.classCount + asked]
        lines.append("  \(name(asked)) was asked for at \(edge.asked)")
        lines.append("  while \(name(held)) was held since \(edge.held).")
      }
      lines.append(
        "Take them in one order everywhere; against the order only try, or set a deadline.")
      fatalError(lines.joined(separator: "\n"))
    }

    private func reportDirections(
      _ lockClass: UInt8, _ isUpwards: Bool, _ hold: RequestRecord, _ site: CallSite,
      _ otherHeld: CallSite, _ otherAsked: CallSite
    ) -> Never {
      fatalError(
        """
        RangeLock: lock order: a range of \(name(lockClass)) \(isUpwards ? "above" : "below") a held one is asked for \
        at \(site)
          while one is held since \(hold.site);
        before, the order was the other one:
          a range \(isUpwards ? "below" : "above") a held one was asked for at \(otherAsked)
          while one was held since \(otherHeld).
        Ask for all at once with lock(overAll:), or upwards everywhere.
        """)
    }

    private func reportTwoOfOneName(
      _ lockClass: UInt8, _ hold: RequestRecord, _ site: CallSite
    ) -> Never {
      fatalError(
        """
        RangeLock: lock order: a lock named \(name(lockClass)) is asked for at \(site)
          while another one of that name is held since \(hold.site).
        Nobody can tell which of the two comes first. Give them two names, or only try the second.
        """)
    }

    private func reportNested(
      _ lockClass: UInt8, _ hold: RequestRecord, _ range: KeyRange, _ site: CallSite
    ) -> Never {
      fatalError(
        """
        RangeLock: \(range) of \(name(lockClass)) is asked for at \(site)
          while its caller holds \(hold.description).
        It would wait for itself: for the hold, or, even if both read, behind a writer that came between. Keep the first \
        hold and do not ask again.
        """)
    }
  }
#endif
