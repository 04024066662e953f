// SPDX-License-Identifier: Apache-2.0
//
// C1, C2, C3 and the rows of mprotect and madvise: errno for errno what the kernel of this machine says.

import Glibc
import RangelandTestSupport
import SystemPackage
import Testing

@testable import Rangeland

@Suite(.enabled(if: HostWindow.isSupported, "PROCMAP_QUERY needs Linux 6.11"))
struct HostErrnoTests {
  private static let end = Address.spaceEnd
  private static let max = UInt64.max

  /// Addresses around every border that a call checks. The window is a page-aligned base.
  private static func addresses(_ base: Address) -> [Address] {
    [
      base, base + 1, base + page - 1, base + page, base + 4 * page, end - 2 * page, end - page,
      end - 1, end, end + 1, end + page, 1 << 47, 1 << 63, max - page + 1, max - 1, max,
    ]
  }

  private static let lengths: [UInt64] = [
    0, 1, page - 1, page, page + 1, 3 * page, 6 * page, end - page, end, end + 1, end + page,
    1 << 47, 1 << 63, max - page, max - page + 1, max - page + 2, max - 1, max,
  ]

  /// A window whose pages are: rw, hole, r, none, rw; and a space with the same.
  private func pair(_ policy: LockPolicy) throws -> (HostWindow, AddressSpace) {
    let window = try HostWindow(pages: 8)
    let space = try makeSpace(policy)
    for (i, protection) in [[.read, .write], nil, .read, [], [.read, .write]].enumerated()
      as EnumeratedSequence<[Protection?]>
    {
      guard let protection else { continue }
      let at = window.start + UInt64(i) * page
      #expect(window.map(.fixed(at), page, protection, .private) == .success(at))
      _ = try space.map(length: page, at: .fixed(at), protection: protection)
    }
    return (window, space)
  }

  /// Whether a row reaches nothing of this process outside the window.
  private func isHarmless(
    _ window: HostWindow, _ address: Address, _ length: UInt64, checksEnd: Bool
  ) -> Bool {
    let start = address & ~(page - 1)
    let (end, overflow) = start.addingReportingOverflow(length)
    if overflow || start >= Self.end { return true }
    if end > Self.end && checksEnd { return true }
    return start >= window.start && end <= window.start + window.pages * page
  }

  private func check(
    _ policy: LockPolicy, checksEnd: Bool = true, _ host: (HostWindow, Address, UInt64) -> Errno?,
    _ ours: (AddressSpace, Address, UInt64) -> Errno?
  ) throws {
    var rows = 0
    let (probe, _) = try pair(policy)
    for i in Self.addresses(probe.start).indices {
      for length in Self.lengths {
        let (window, space) = try pair(policy)
        let address = Self.addresses(window.start)[i]
        guard isHarmless(window, address, length, checksEnd: checksEnd) else { continue }
        rows += 1
        let expected = host(window, address, length)
        let got = ours(space, address, length)
        #expect(
          got == expected,
          "\(String(address, radix: 16)) + \(String(length, radix: 16)) with \(policy)")
        #expect(space.mappings(in: window) == window.mappings())
      }
    }
    #expect(rows > 100)
  }

  @Test(arguments: LockPolicy.allCases)
  func `munmap`(_ policy: LockPolicy) throws {
    try check(
      policy, { $0.unmap($1, $2) },
      { space, at, length in errno { try space.unmap(at: at, length: length) } })
  }

  @Test(arguments: LockPolicy.allCases, [Protection.read, [], [.read, .write, .execute]])
  func `mprotect`(_ policy: LockPolicy, _ protection: Protection) throws {
    try check(
      policy, { $0.protect($1, $2, protection) },
      { space, at, length in errno { try space.protect(at: at, length: length, protection) } })
  }

  @Test(arguments: LockPolicy.allCases)
  func `madvise DONTNEED`(_ policy: LockPolicy) throws {
    // The kernel does all that is mapped in a range, and looks for no end of the space.
    try check(
      policy, checksEnd: false, { $0.dontNeed($1, $2) },
      { space, at, length in errno { try space.dontNeed(at: at, length: length) } })
  }

  @Test(arguments: LockPolicy.allCases, [Sharing.private, .shared])
  func `mmap at a fixed address`(_ policy: LockPolicy, _ sharing: Sharing) throws {
    for replacing in [true, false] {
      func at(_ address: Address) -> MapAddress {
        replacing ? .fixed(address) : .fixedNoReplace(address)
      }
      try check(
        policy,
        { window, address, length in
          switch window.map(at(address), length, .read, sharing) {
          case .success: nil
          case .failure(let error): error
          }
        },
        { space, address, length in
          errno {
            _ = try space.map(
              length: length, at: at(address), protection: .read, sharing: sharing)
          }
        })
    }
  }

  @Test(arguments: LockPolicy.allCases)
  func `mmap without an address refuses the lengths that the kernel refuses`(
    _ policy: LockPolicy
  ) throws {
    let space = try makeSpace(policy)
    let window = try HostWindow(pages: 1)
    for length in Self.lengths {
      let ours = errno { _ = try space.map(length: length, protection: []) }
      switch window.map(.anywhere, length, [], .private) {
      case .success(let at):
        #expect(window.unmap(at, length) == nil)
        #expect(ours == nil, "length \(String(length, radix: 16))")
      case .failure(let error):
        #expect(ours == error, "length \(String(length, radix: 16))")
      }
    }
  }

  @Test(arguments: LockPolicy.allCases)
  func `hints are honoured and rounded as the kernel does`(_ policy: LockPolicy) throws {
    for offset in [0, 1, page / 2, page - 1, page, page + 1, 2 * page, 4 * page, 5 * page + 1]
      as [UInt64]
    {
      for length in [1, page, 2 * page, 3 * page] as [UInt64] {
        let (window, space) = try pair(policy)
        let hint = window.start + offset
        let ours = try space.map(length: length, at: .hint(hint), protection: .read)
        let inside = { (at: Address) in
          at >= window.start && at < window.start + window.pages * page ? at : nil
        }
        switch window.map(.hint(hint), length, .read, .private) {
        case .success(let at):
          #expect(inside(ours) == inside(at), "hint + \(offset), \(length) bytes")
          if inside(at) == nil { #expect(window.unmap(at, length) == nil) }
        case .failure(let error):
          Issue.record("the kernel refused a hint: \(error)")
        }
        #expect(space.mappings(in: window) == window.mappings())
      }
    }
  }

  @Test(arguments: LockPolicy.allCases)
  func `hints that no mapping can have are ignored`(_ policy: LockPolicy) throws {
    let space = try makeSpace(policy)
    let window = try HostWindow(pages: 1)
    for hint in [Self.end - page + 1, Self.end, Self.end + page, 1 << 47, 1 << 63, Self.max]
      as [Address]
    {
      let ours = try space.map(length: page, at: .hint(hint), protection: .read)
      guard case .success(let at) = window.map(.hint(hint), page, .read, .private) else {
        Issue.record("the kernel refused a hint")
        continue
      }
      #expect(window.unmap(at, page) == nil)
      #expect((ours == hint & ~(page - 1)) == (at == hint & ~(page - 1)))
    }
  }
}
