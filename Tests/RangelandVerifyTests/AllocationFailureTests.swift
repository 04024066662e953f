// SPDX-License-Identifier: Apache-2.0
//
// When the k-th allocation of a call fails, for every k: the call says so, and nothing has changed, or what Linux
// would leave; then it does what it would have done.

import Rangeland
import RangelandTestSupport
import Testing

@testable import RangelandVerify

/// Small windows, over borders of page tables and of huge pages.
private let windows = [
  KernelProcess.AddressPair(start: 0x6000_001f_0000, end: 0x6000_0022_0000),
  KernelProcess.AddressPair(start: 0x5555_5570_3000, end: 0x5555_5573_3000),
  KernelProcess.AddressPair(start: 0x5000_3000, end: 0x5003_3000),
]

@Suite(.enabled(if: AddressSpace.canFailAllocations, "allocations fail in checked builds only"))
struct AllocationFailureTests {
  @Test(arguments: LockPolicy.allCases)
  func `every allocation of every call of a script fails once`(_ policy: LockPolicy) throws {
    let random = SeededRandom(for: "allocation failures under \(policy)")
    var failures: [VerifyCall.Kind: Int] = [:]
    let wanted: [VerifyCall.Kind] = [.load, .mmap, .mprotect, .munmap, .store]
    // Six scripts may by chance have no call of a kind that allocates.
    var script: UInt64 = 0
    while script < 6 || (script < 60 && wanted.contains { failures[$0, default: 0] == 0 }) {
      try run(policy, seed: random.seed &+ script, calls: 60, &failures)
      script += 1
    }
    print("\(policy): \(failures.map { "\($0.key) \($0.value)" }.sorted())")
    for kind in wanted {
      #expect(failures[kind, default: 0] > 0, "no allocation of \(kind) failed")
    }
  }

  /// The calls that random scripts make seldom.
  @Test(arguments: LockPolicy.allCases)
  func `every allocation of locks and of the break fails once`(_ policy: LockPolicy) throws {
    let random = SeededRandom(for: "allocation failures of locks under \(policy)")
    var failures: [VerifyCall.Kind: Int] = [:]
    let kinds: [VerifyCall.Kind] = [.brk, .mlock, .mlock2, .mlockall, .munlock, .munlockall]
    var scripts: UInt64 = 0
    while scripts < 3 || scripts < 400 && kinds.contains(where: { failures[$0] == nil }) {
      try run(
        policy, seed: random.seed &+ scripts, calls: 50,
        kinds: kinds + [.mmap, .store, .mprotect], &failures)
      scripts += 1
    }
    print("\(policy): \(failures.map { "\($0.key) \($0.value)" }.sorted())")
    for kind in kinds {
      #expect(failures[kind, default: 0] > 0, "no allocation of \(kind) failed")
    }
  }

  private func run(
    _ policy: LockPolicy, seed: UInt64, calls: Int,
    kinds: [VerifyCall.Kind] = VerifyCall.Kind.ordinary, _ failures: inout [VerifyCall.Kind: Int]
  ) throws {
    // Memory of its own each: a frame that one has in its caches is none that the other allocates.
    func make() throws -> SpaceSubject {
      let subject = try SpaceSubject(
        windows: windows, policy: policy, memory: try PhysicalMemory())
      // This process's, which would refuse that all is locked.
      subject.space.limits.lockedMemory = nil
      return subject
    }
    var subject = try make()
    let reference = try make()
    var made: [VerifyCall] = []
    // A seal would keep the windows from being emptied. The files of scripts are there before the kernel only; tests of
    // their own take memory away from files, and from copies between spaces, which say nothing of it.
    var generator = ScriptGenerator(
      seed: seed, windows: windows,
      kinds: kinds.filter {
        $0 != .mseal && !$0.isTransfer && !VerifyCall.Kind.ofFiles.contains($0)
      })
    for index in 0..<calls {
      var call = windows.resolve(generator.next(SpaceFamily(reference)))
      // They are made in a space of their own.
      while Departure.all.contains(where: { $0.applies(call) }) {
        call = windows.resolve(generator.next(SpaceFamily(reference)))
      }
      let before = PageStates(reference)
      let expected = reference.perform(call)
      let after = PageStates(reference)
      var k = 0
      while true {
        subject.space.failAllocation(after: k)
        let outcome = subject.perform(call)
        guard subject.space.disarmFailure() else {
          #expect(outcome == expected, "call \(index): \(call)")
          break
        }
        failures[call.kind, default: 0] += 1
        let what = "call \(index), allocation \(k): \(call)"
        if outcome == expected && (call.isAccess || outcome.succeeded(call)) {
          // It can do without, as when a list of what is to be freed does not get longer and is worked off.
          // Again, for the allocations that follow. Pages that are brought in ahead need not all be there.
          let now = PageStates(subject)
          #expect(
            now == after || call.bringsIn && now.lacksOnlyPages(of: after), "\(what)")
          subject = try make()
          for earlier in made { _ = subject.perform(earlier) }
          k += 1
          continue
        }
        // Advice that changes attributes says EAGAIN.
        let isRefusal =
          call.isAccess
          // A stack that cannot grow is none there.
          ? outcome.code == -1 || outcome.code == 1
          : outcome == VerifyOutcome(.noMemory)
            || [.madvise, .mlock, .mlock2].contains(call.kind)
              && outcome == VerifyOutcome(.resourceTemporarilyUnavailable)
            // A break that cannot move stays.
            || call.kind == .brk && UInt64(bitPattern: outcome.result) != call.at
        #expect(isRefusal, "\(what) = \(outcome)")
        let now = PageStates(subject)
        // A mapping that a limit refuses leaves its ends cut, as far as there is memory.
        if call.isAccess {
          #expect(now.hasGrown(from: before, upTo: after), "\(what)")
        } else if call.kind == .mprotect && now != before {
          // What was locked and is writable now may lack its pages, and does not get them when the call is made again.
          #expect(now.isBetween(before, after, mayLackPages: true), "\(what)")
          subject = try make()
          for earlier in made { _ = subject.perform(earlier) }
        } else if outcome == expected || call.kind.definition.keepsWhatItDid {
          #expect(now.isBetween(before, after), "\(what)")
        } else if call.kind == .mremap && call.flags & RemapCall.fixed != 0 && now != before {
          // What the target replaces is gone first, and of several mappings some have moved: then it is no call
          // that can be made again.
          let places = call.kind.definition.reach(call) ?? []
          #expect(now.differs(from: before, onlyIn: places), "\(what)")
          subject = try make()
          for earlier in made { _ = subject.perform(earlier) }
        } else {
          #expect(now == before, "\(what)")
        }
        k += 1
        try #require(k < 1000, "more allocations than a call makes: \(what)")
      }
      #expect(PageStates(subject) == after, "call \(index): \(call)")
      made.append(call)
    }
    for window in windows {
      let all = VerifyCall(
        .munmap, VerifyAddress(nil, window.start), window.end - window.start)
      #expect(subject.perform(all) == .success)
    }
    var sizes = subject.sizes()
    // What lies outside may stay locked.
    sizes.outsideLocks = 0
    #expect(sizes == VerifySizes())
    #expect(subject.space.memory.framesInUse <= 1)
  }
}

extension VerifyCall {
  /// Whether the call brings pages in ahead of accesses, and succeeds without.
  fileprivate var bringsIn: Bool {
    switch kind {
    case .mmap, .brk, .mremap, .mprotect, .mlockall: true
    default: false
    }
  }
}

/// Everything that can be seen of a subject.
private struct PageStates: Equatable {
  private struct Page: Equatable {
    var rights: UInt32
    var isShared: Bool
    var isPresent: Bool
    var hash: UInt64?

    /// Whether it is mapped as another is, and not present.
    func lacksOnlyPage(of other: Page) -> Bool {
      !isPresent && rights == other.rights && isShared == other.isShared
    }
  }

  private var mappings: [VerifyMapping] = []
  private var pages: [UInt64: Page] = [:]
  private var sizes: VerifySizes

  init(_ subject: SpaceSubject) {
    sizes = subject.sizes()
    for window in windows {
      let listed = subject.mappings(window.start, window.end)
      let present = Set(subject.presentPages(window.start, window.end))
      mappings += listed
      for mapping in listed {
        for page in stride(from: mapping.start, to: mapping.end, by: 4096) {
          let isPresent = present.contains(page)
          pages[page] = Page(
            rights: mapping.protection, isShared: mapping.isShared, isPresent: isPresent,
            hash: isPresent ? subject.hash(page) : nil)
        }
      }
    }
  }

  /// Whether all pages outside of `places` are as they were.
  func differs(
    from before: PageStates, onlyIn places: [KernelProcess.AddressPair]
  ) -> Bool {
    let all = Set(pages.keys).union(before.pages.keys)
    return all.allSatisfy { page in
      places.contains { $0.start <= page && page < $0.end } || pages[page] == before.pages[page]
    }
  }

  /// Whether all is as it is after a call that brings pages in, but for some of them.
  func lacksOnlyPages(of after: PageStates) -> Bool {
    if mappings != after.mappings { return false }
    return pages.allSatisfy { address, page in
      guard let other = after.pages[address] else { return false }
      return page == other || page.lacksOnlyPage(of: other)
    }
  }

  /// Whether pages are as they were before or after an access; a stack may have grown without its page, and of two
  /// pages the first may have been made, of zeros.
  func hasGrown(from before: PageStates, upTo after: PageStates) -> Bool {
    Set(pages.keys).union(before.pages.keys).allSatisfy { page in
      let (now, old, new) = (pages[page], before.pages[page], after.pages[page])
      if now == old || now == new { return true }
      return old?.isPresent != true && now?.rights == new?.rights && now?.isShared == new?.isShared
    }
  }

  /// Whether pages are as they were after a call up to some address, and as before it from there on.
  func isBetween(
    _ before: PageStates, _ after: PageStates, mayLackPages: Bool = false
  ) -> Bool {
    if pages.count != before.pages.count { return false }
    var isDone = true
    for page in pages.keys.sorted() {
      if isDone && pages[page] == after.pages[page] { continue }
      if isDone && mayLackPages, let now = pages[page], let new = after.pages[page],
        now.lacksOnlyPage(of: new)
      {
        continue
      }
      isDone = false
      if pages[page] != before.pages[page] { return false }
    }
    return true
  }
}
