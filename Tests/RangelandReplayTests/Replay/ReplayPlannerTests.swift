// SPDX-License-Identifier: Apache-2.0

import Glibc
import Rangeland
import Testing

@testable import RangelandReplay

/// The history that the planner makes of recorded times and results.
@Suite struct ReplayPlannerTests {
  private static let page: UInt64 = 4096
  private static let base: UInt64 = 0x10_0000

  private func plan(_ events: [RecordedEvent], _ areas: [RecordedArea] = []) throws -> ReplayPlan {
    ReplayPlan(try Recording(bytes: fileBytes(events, areas: areas), name: "test"))
  }

  /// What each thread does, in words.
  private func words(_ plan: ReplayPlan, _ thread: Int) -> [String] {
    plan.threads[thread].map { "\(plan.steps[$0].action)" }
  }

  /// Threads and steps that the `index`th step of a thread waits for.
  private func waits(_ plan: ReplayPlan, _ thread: Int, _ index: Int) -> [[Int]] {
    let step = plan.steps[plan.threads[thread].lowerBound + index]
    return plan.dependencies[step.dependencies].map { [$0.thread, $0.steps] }
  }

  private func map(
    _ address: UInt64, _ pages: UInt64, thread: Int, at enter: UInt64, to exit: UInt64,
    flags: UInt64 = 0x22
  ) -> RecordedEvent {
    call(
      .mmap, CallArguments(0, pages * Self.page, 3, flags, .max, 0), thread: thread, at: enter,
      to: exit, result: Int64(address))
  }

  private func unmap(
    _ address: UInt64, _ pages: UInt64, thread: Int, at enter: UInt64, to exit: UInt64
  ) -> RecordedEvent {
    call(
      .munmap, CallArguments(address, pages * Self.page), thread: thread, at: enter, to: exit)
  }

  private func protect(
    _ address: UInt64, _ pages: UInt64, _ rights: UInt64, thread: Int, at enter: UInt64,
    to exit: UInt64
  ) -> RecordedEvent {
    call(
      .mprotect, CallArguments(address, pages * Self.page, rights), thread: thread, at: enter,
      to: exit)
  }

  @Test func `an address that was given out before its unmap was over is free first`() throws {
    let made = try plan([
      beginning(0, at: 0), beginning(1, at: 0), map(Self.base, 4, thread: 0, at: 1, to: 2),
      // The unmap's exit is stamped after the other thread already has the address.
      unmap(Self.base, 4, thread: 0, at: 10, to: 30),
      map(Self.base, 4, thread: 1, at: 12, to: 20),
    ])
    #expect(words(made, 0) == ["map", "unmap"])
    #expect(waits(made, 1, 0) == [[0, 2]])
    #expect(made.ambiguousPairs == 1)
    #expect(made.substituted.isEmpty)
  }

  @Test func `a mapping that takes longer than an unmap of its addresses comes after it`() throws {
    let made = try plan([
      beginning(0, at: 0), beginning(1, at: 0), map(Self.base, 4, thread: 0, at: 1, to: 2),
      map(Self.base, 2, thread: 1, at: 9, to: 40), unmap(Self.base, 4, thread: 0, at: 10, to: 30),
    ])
    #expect(waits(made, 1, 0) == [[0, 2]])
    #expect(waits(made, 0, 1).isEmpty)
  }

  @Test func `protect that succeeded beside an unmap came before it`() throws {
    let made = try plan([
      beginning(0, at: 0), beginning(1, at: 0), map(Self.base, 4, thread: 0, at: 1, to: 2),
      unmap(Self.base, 4, thread: 0, at: 10, to: 30),
      protect(Self.base, 1, 1, thread: 1, at: 11, to: 29),
    ])
    #expect(waits(made, 1, 0) == [[0, 1]])
    #expect(waits(made, 0, 1) == [[1, 1]])
    #expect(made.substituted.isEmpty)
  }

  @Test func `a move to where an unmap was under way came after it`() throws {
    let made = try plan([
      beginning(0, at: 0), beginning(1, at: 0), map(Self.base, 4, thread: 0, at: 1, to: 2),
      map(Self.base + 0x10_0000, 2, thread: 1, at: 3, to: 4),
      unmap(Self.base, 4, thread: 0, at: 10, to: 30),
      call(
        .mremap, CallArguments(Self.base + 0x10_0000, 8192, 16384, 1, 0), thread: 1, at: 11,
        to: 29, result: Int64(Self.base)),
      call(
        .mremap, CallArguments(Self.base, 16384, 8192, 0, 0), thread: 1, at: 40,
        result: Int64(Self.base)),
    ])
    #expect(made.substituted.isEmpty, "\(made.substituted)")
    #expect(waits(made, 1, 1) == [[0, 2]])
    #expect(waits(made, 0, 1).isEmpty)
  }

  @Test func `a fault beside an unmap came before it, one after its map comes after that`() throws {
    let made = try plan([
      beginning(0, at: 0), beginning(1, at: 0), map(Self.base, 4, thread: 0, at: 1, to: 2),
      fault(Self.base + 8, thread: 1, at: 5), unmap(Self.base, 4, thread: 0, at: 10, to: 30),
      fault(Self.base + 5000, thread: 1, at: 15),
    ])
    #expect(words(made, 1) == ["fault", "fault"])
    #expect(waits(made, 1, 0) == [[0, 1]] && waits(made, 1, 1) == [[0, 1]])
    #expect(waits(made, 0, 1) == [[1, 2]])
    #expect(made.steps.allSatisfy { $0.expected == .success })
  }

  @Test func `a write beside a protect that allows it comes after it`() throws {
    let areas = [
      RecordedArea(start: Self.base, end: Self.base + Self.page, protection: .read)
    ]
    let made = try plan(
      [
        beginning(0, at: 0), beginning(1, at: 0),
        protect(Self.base, 1, 3, thread: 0, at: 10, to: 30),
        fault(Self.base, thread: 1, at: 20),
      ], areas)
    #expect(waits(made, 1, 0) == [[0, 1]])
    #expect(made.steps.allSatisfy { $0.expected == .success })
  }

  @Test func `accesses that the mappings refuse are expected to be refused`() throws {
    let areas = [
      RecordedArea(start: Self.base, end: Self.base + Self.page, protection: .read)
    ]
    let made = try plan(
      [
        beginning(0, at: 0), fault(Self.base, at: 1), fault(Self.base + Self.page, at: 2),
        fault(Self.base, at: 3, code: 4), fault(Self.base, at: 4, code: 20),
      ], areas)
    #expect(
      made.steps.map(\.expected) == [
        .refusal(.notPermitted), .refusal(.notMapped), .success, .refusal(.notPermitted),
      ])
  }

  @Test func `readers of a page do not wait for each other, nor does who works elsewhere`() throws {
    let made = try plan([
      beginning(0, at: 0), beginning(1, at: 0), beginning(2, at: 0),
      map(Self.base, 4, thread: 0, at: 1, to: 2), fault(Self.base, thread: 1, at: 5),
      fault(Self.base, thread: 2, at: 6), protect(Self.base + 8192, 1, 1, thread: 2, at: 7, to: 8),
      fault(Self.base + 4096, thread: 1, at: 9),
    ])
    #expect(waits(made, 1, 0) == [[0, 1]] && waits(made, 2, 0) == [[0, 1]])
    #expect(waits(made, 2, 1) == [[0, 1]])
    #expect(waits(made, 1, 1) == [[0, 1]])
  }

  @Test func `threads are started by their maker, in its order`() throws {
    let made = try plan([
      beginning(0, at: 0), map(Self.base, 4, thread: 0, at: 1, to: 2),
      call(.clone3, CallArguments(0, 88), at: 3, to: 9, result: 101),
      beginning(1, at: 5, parent: 0), fault(Self.base, thread: 1, at: 6),
      unmap(Self.base + 8192, 1, thread: 0, at: 10, to: 11),
    ])
    #expect(made.roots == [0])
    #expect(words(made, 0) == ["map", "spawn", "unmap"])
    #expect(made.operations == 3)
  }

  @Test func `what fails for its arguments or its file fails again, and no pages are advised`()
    throws
  {
    let made = try plan([
      beginning(0, at: 0), map(Self.base, 4, thread: 0, at: 1, to: 2),
      call(.madvise, CallArguments(Self.base + 40, 4096, 16), at: 3, result: -22),
      call(.msync, CallArguments(Self.base + 40, 4096, 4), at: 5, result: -22),
      call(.madvise, CallArguments(0, 0, 17), at: 7),
      // MAP_SHARED_VALIDATE | MAP_SYNC.
      call(.mmap, CallArguments(0, 100 << 20, 3, 0x8_0003, 12, 0), at: 9, result: -95),
      // Limits and files that nobody knows.
      call(.mmap, CallArguments(0, 4096, 3, 1, 12, 0), at: 11, result: -13),
    ])
    #expect(words(made, 0) == ["map", "call", "call", "call", "call"])
    let counts = Dictionary(uniqueKeysWithValues: made.substituted.map { ($0.kind, $0.count) })
    #expect(counts == ["failed mmap": 1])
    for policy in LockPolicy.allCases {
      let run = try Replay(
        made, AddressSpace(policy: policy), ReplayFiles(sizes: made.fileSizes)
      ).run { false }
      #expect(run.mismatches == 0, "\(policy): \(run.examples)")
    }
    let onKernel = try KernelReplay(made, ReplayFiles(sizes: made.fileSizes))
    let kernel = try onKernel.run(isCancelled: { false })
    #expect(onKernel.leftOut.isEmpty)
    #expect(kernel.mismatches == 0, "\(kernel.examples)")
    // A success that should have failed is seen.
    var wrong = made
    let step = try #require(made.steps.firstIndex { $0.expected == .failure(22) })
    wrong.calls[Int(made.steps[step].call)].arguments.first = Self.base
    let run = try Replay(
      wrong, AddressSpace(policy: .ranged), ReplayFiles(sizes: made.fileSizes)
    ).run { false }
    #expect(run.mismatches == 1)
  }

  @Test func `calls are made as they were recorded, at the place that was recorded`() throws {
    let areas = [
      RecordedArea(
        start: 0x7fff_0000_0000, end: 0x7fff_0000_2000, protection: [.read, .write],
        backing: .stack),
      RecordedArea(
        start: 0x7fff_1000_0000, end: 0x7fff_1000_1000, protection: .read, backing: .kernel),
    ]
    let heap = UInt64(0x5000_0000)
    let made = try plan(
      [
        beginning(0, at: 0), call(.brk, CallArguments(0), at: 1, result: Int64(heap)),
        call(.brk, CallArguments(heap + 8192), at: 3, result: Int64(heap + 8192)),
        call(.brk, CallArguments(heap + 4096), at: 5, result: Int64(heap + 4096)),
        fault(0x7ffe_ffff_e000, at: 7),
        call(
          .mmap, CallArguments(0, 8192, 1, 2, 3, 0), at: 9, result: Int64(Self.base), file: nil),
        call(
          .mremap, CallArguments(Self.base, 8192, 16384, 1, 0), at: 11,
          result: Int64(Self.base + 0x10_0000)),
        call(.madvise, CallArguments(heap, 4096, 14), at: 13),
        call(.mlock, CallArguments(heap, 4096), at: 15),
        call(.mmap, CallArguments(0, 4096, 3, 0x22, .max, 0), at: 17, result: -12),
      ], areas)
    #expect(
      words(made, 0) == [
        "call", "call", "call", "fault", "call", "call", "call", "call",
      ])
    #expect(made.calls.suffix(4).map(\.operation) == [.map, .remap, .setAdvice, .lockMemory])
    let counts = Dictionary(uniqueKeysWithValues: made.substituted.map { ($0.kind, $0.count) })
    #expect(
      counts == ["failed mmap": 1])
    for policy in LockPolicy.allCases {
      let run = try Replay(
        made, AddressSpace(policy: policy), ReplayFiles(sizes: made.fileSizes)
      ).run { false }
      #expect(run.mismatches == 0, "\(policy): \(run.examples)")
    }
  }

  @Test func `pages of a file are shown elsewhere, by this call and by the kernel`() throws {
    let made = try plan([
      beginning(0, at: 0),
      call(
        .mmap, CallArguments(0, 8 * 4096, 3, 1, 3, 4096), at: 1, result: Int64(Self.base),
        file: nil),
      call(.remapFilePages, CallArguments(Self.base + 4096, 8192, 0, 6, 0), at: 3),
      fault(Self.base + 4096, at: 5),
      // Further than the file is long as far as the recording tells: not made.
      call(.remapFilePages, CallArguments(Self.base, 4096, 0, 1 << 20, 0), at: 7),
    ])
    #expect(words(made, 0) == ["call", "call", "fault"])
    #expect(made.substituted.map(\.kind) == ["remap_file_pages"])
    #expect(made.finalLayout.count == 3)
    let files = try ReplayFiles(sizes: made.fileSizes)
    for policy in LockPolicy.allCases {
      let run = try Replay(made, AddressSpace(policy: policy), files).run { false }
      #expect(run.mismatches == 0, "\(policy): \(run.examples)")
    }
    #expect(try KernelReplay(made, files).run { false }.mismatches == 0)
  }

  @Test func `what the product does not have is applied by its effect and counted`() throws {
    let made = try plan([
      beginning(0, at: 0),
      call(
        .mmap, CallArguments(0, 2 << 20, 3, 0x4_0022, .max, 0), at: 1, result: 0x4000_0000),
      // Nothing tells where the heap begins.
      call(.brk, CallArguments(0x5000_2000), at: 3, result: 0x5000_2000),
      call(.brk, CallArguments(0x5000_4000), at: 5, result: 0x5000_4000),
      call(.mremap, CallArguments(0x6000_0000, 4096, 8192, 1, 0), at: 7, result: 0x7000_0000),
      call(.userfaultfd, CallArguments(0), at: 9, result: 3),
      call(
        .processMadvise, CallArguments(3, 0x1000, 1, 20, 0), at: 11, result: 4096),
    ])
    #expect(
      words(made, 0) == ["substituteMapping", "substituteMapping", "substituteMapping"])
    let counts = Dictionary(uniqueKeysWithValues: made.substituted.map { ($0.kind, $0.count) })
    #expect(
      counts == [
        "mmap MAP_HUGETLB": 1, "brk": 2, "mremap of what is not mapped": 1, "userfaultfd": 1,
        "process_madvise": 1,
      ])
  }

  @Test func `failed calls that the product has fail alike`() throws {
    let areas = [
      RecordedArea(start: Self.base, end: Self.base + 8192, protection: [.read, .write])
    ]
    let made = try plan(
      [
        beginning(0, at: 0),
        call(.mprotect, CallArguments(Self.base, 3 * 4096, 1), at: 1, result: -12),
        fault(Self.base, at: 3),
        call(.madvise, CallArguments(Self.base, 3 * 4096, 4), at: 5, result: -12),
        call(.mprotect, CallArguments(Self.base, 4096, 2), at: 7, result: -13),
      ], areas)
    #expect(
      made.steps.map(\.expected) == [
        .failure(ENOMEM), .refusal(.notPermitted), .failure(ENOMEM),
      ])
    #expect(made.substituted.map(\.kind) == ["failed mprotect"])
  }
}
