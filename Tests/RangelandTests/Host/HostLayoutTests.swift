// SPDX-License-Identifier: Apache-2.0
//
// P2, C3, C16, C19, V2, V5: split and merge, page for page, against the kernel of this machine.

import Glibc
import RangelandTestSupport
import SystemPackage
import Testing

@testable import Rangeland

/// One call, the same for both.
private enum HostCall: CustomStringConvertible {
  case map(MapAddress, UInt64, Protection, Sharing)
  /// A private mapping of a file: number and page offset.
  case file(Address, UInt64, Protection, Int, UInt64)
  case unmap(Address, UInt64)
  case protect(Address, UInt64, Protection)
  case dontNeed(Address, UInt64)
  case write(Address, UInt64)
  case read(Address)

  var description: String {
    func hex(_ a: UInt64) -> String { String(a, radix: 16) }
    switch self {
    case .map(.fixed(let a), let n, let p, let s):
      return "map \(hex(a)) \(hex(n)) \(p.rawValue) \(s)"
    case .map(let a, let n, let p, let s): return "map \(a) \(hex(n)) \(p.rawValue) \(s)"
    case .file(let a, let n, let p, let f, let o):
      return "file \(hex(a)) \(hex(n)) \(p.rawValue) \(f)@\(hex(o))"
    case .unmap(let a, let n): return "unmap \(hex(a)) \(hex(n))"
    case .protect(let a, let n, let p): return "protect \(hex(a)) \(hex(n)) \(p.rawValue)"
    case .dontNeed(let a, let n): return "dontneed \(hex(a)) \(hex(n))"
    case .write(let a, _): return "write \(hex(a))"
    case .read(let a): return "read \(hex(a))"
    }
  }
}

@Suite(.enabled(if: HostWindow.isSupported, "PROCMAP_QUERY needs Linux 6.11"))
struct HostLayoutTests {
  private static let protections: [Protection] = [
    [], .read, [.read, .write], [.read, .write], [.read, .execute],
  ]

  private func randomCall(_ window: HostWindow, _ random: inout SeededRandom) -> HostCall {
    let at = window.start + random.below(window.pages) * page
    let room = (window.start + window.pages * page - at) / page
    var length = (1 + random.below(min(8, room))) * page
    let protection = Self.protections[Int(random.below(UInt64(Self.protections.count)))]
    // A length inside a page, and sometimes what is refused.
    if random.chance(10) { length -= random.below(page) }
    let start = random.chance(2) ? at + 1 + random.below(page - 1) : at
    switch random.below(18) {
    case 16, 17:
      // Often the offset at which the address would stand if the file was mapped at the window's start.
      let offset = random.chance(70) ? (at - window.start) / page : random.below(100)
      let whole = max(1, length / page)
      return .file(at, whole * page, protection, Int(random.below(2)), offset)
    case 0..<3: return .map(.fixed(start), length, protection, .private)
    case 3: return .map(.fixedNoReplace(start), length, protection, .private)
    case 4: return .map(.fixed(at), length, protection, random.chance(50) ? .shared : .private)
    case 5..<7: return .unmap(start, length)
    case 7..<11: return .protect(start, length, protection)
    case 11: return .dontNeed(start, length)
    case 12..<15: return .write(at, random.next())
    default: return .read(at)
    }
  }

  /// Runs a call on both and compares the results.
  private func run(_ call: HostCall, _ window: HostWindow, _ space: AddressSpace) -> String? {
    let host: Errno?
    let ours: Errno?
    switch call {
    case .map(let address, let length, let protection, let sharing):
      let result = window.map(address, length, protection, sharing)
      do throws(Errno) {
        let at = try space.map(
          length: length, at: address, protection: protection, sharing: sharing)
        if case .success(at) = result { return nil }
        return "kernel \(result), space \(String(at, radix: 16))"
      } catch {
        if case .failure(error) = result { return nil }
        return "kernel \(result), space \(error)"
      }
    case .file(let at, let length, let protection, let file, let offset):
      host = window.mapFile(file, at, length, protection, pageOffset: offset)
      ours = errno {
        try space.substituteMapping(
          AddressRange(start: at, end: at + length), protection: protection, sharing: .private,
          file: UInt64(file), pageOffset: offset)
      }
    case .unmap(let at, let length):
      host = window.unmap(at, length)
      ours = errno { try space.unmap(at: at, length: length) }
    case .protect(let at, let length, let protection):
      host = window.protect(at, length, protection)
      ours = errno { try space.protect(at: at, length: length, protection) }
    case .dontNeed(let at, let length):
      host = window.dontNeed(at, length)
      ours = errno { try space.dontNeed(at: at, length: length) }
    case .write(let at, let value):
      // Where the kernel would deliver a signal, only the refusal is compared.
      let mapping = window.query(at, coveringOnly: true)
      guard let mapping, mapping.protection.contains(.write) else {
        let reason = refusal { try space.store(value, at: at) }
        return reason == (mapping == nil ? .notMapped : .notPermitted)
          ? nil : "a write got \(reason.map { "\($0)" } ?? "through")"
      }
      window.store(value, at)
      let reason = refusal { try space.store(value, at: at) }
      return reason == nil ? nil : "a write was refused: \(reason!)"
    case .read(let at):
      let mapping = window.query(at, coveringOnly: true)
      guard let mapping, !mapping.protection.isEmpty else {
        let reason = refusal { _ = try space.load(UInt64.self, at: at) }
        return reason == (mapping == nil ? .notMapped : .notPermitted)
          ? nil : "a read got \(reason.map { "\($0)" } ?? "through")"
      }
      let expected = window.load(at)
      let value = try? space.load(UInt64.self, at: at)
      return value == expected ? nil : "read \(value.map { "\($0)" } ?? "refused"), not \(expected)"
    }
    return host == ours
      ? nil : "kernel \(host.map { "\($0)" } ?? "ok"), space \(ours.map { "\($0)" } ?? "ok")"
  }

  /// Compares every page that can be read.
  private func contents(_ window: HostWindow, _ space: AddressSpace) -> String? {
    for mapping in window.mappings() where !mapping.protection.isEmpty {
      for at in stride(from: mapping.range.start, to: mapping.range.end, by: Int(page)) {
        let expected = window.load(at)
        let value = try? space.load(UInt64.self, at: at)
        if value != expected {
          return
            "\(String(at, radix: 16)) holds \(value.map { "\($0)" } ?? "nothing"), not \(expected)"
        }
      }
    }
    return nil
  }

  private func compare(
    _ policy: LockPolicy, calls: Int, pages: UInt64, _ random: inout SeededRandom
  ) throws {
    let window = try HostWindow(pages: pages)
    try window.makeFiles(2)
    let space = try makeSpace(policy)
    var history: [String] = []
    for i in 0..<calls {
      let call = randomCall(window, &random)
      history.append("\(call)")
      if history.count > 24 { history.removeFirst() }
      var difference = run(call, window, space)
      if difference == nil {
        let host = window.mappings()
        let ours = space.mappings(in: window)
        if host != ours {
          difference =
            "kernel:\n\(host.map(\.description).joined(separator: "\n"))\nspace:\n"
            + ours.map(\.description).joined(separator: "\n")
        }
      }
      if difference == nil, i % 32 == 0 { difference = contents(window, space) }
      if i % 16 == 0 { space.checkInvariants() }
      if let difference {
        Issue.record(
          "call \(i): \(difference)\nlast calls:\n\(history.joined(separator: "\n"))")
        return
      }
      let usage = space.usage
      guard usage.mappings == space.mappings().count else {
        Issue.record("call \(i) \(call): map_count \(usage.mappings)")
        return
      }
    }
    #expect(contents(window, space) == nil)
    // Everything goes, and nothing is left over.
    try space.unmap(at: window.start, length: pages * page)
    #expect(space.usage.virtualPages == 0 && space.usage.residentAnonymousPages == 0)
    #expect(space.memory.framesInUse <= 1)
  }

  @Test(arguments: LockPolicy.allCases)
  func `P2 random calls leave the mappings and contents that the kernel has`(
    _ policy: LockPolicy
  ) throws {
    var random = SeededRandom(for: "host layout \(policy)")
    // 108,000 over all policies; windows of several sizes, so that VMAs reach over several leaves or sit in
    // one.
    for pages in [12, 40, 150] as [UInt64] {
      try compare(policy, calls: 9000, pages: pages, &random)
    }
  }

  @Test(arguments: LockPolicy.allCases)
  func `C6 lookups find what PROCMAP_QUERY finds`(_ policy: LockPolicy) throws {
    var random = SeededRandom(for: "host lookups \(policy)")
    let window = try HostWindow(pages: 256)
    let space = try makeSpace(policy)
    for _ in 0..<120 {
      let call = HostCall.map(
        .fixed(window.start + random.below(248) * page), (1 + random.below(8)) * page,
        Self.protections[Int(random.below(5))], .private)
      #expect(run(call, window, space) == nil)
      if random.chance(40) {
        let hole = HostCall.unmap(
          window.start + random.below(252) * page, (1 + random.below(4)) * page)
        #expect(run(hole, window, space) == nil)
      }
    }
    let end = window.start + window.pages * page
    func same(_ host: MappingInfo?, _ ours: MappingInfo?) -> Bool {
      // Above the window the kernel finds its fence.
      let host = host.flatMap { $0.range.start < end ? $0 : nil }
      return host?.range == ours?.range && host?.protection == ours?.protection
    }
    var wrong = 0
    for i in 0..<10_000 {
      var at = window.start + random.below(window.pages * page)
      if i % 3 == 0, let edge = space.mapping(atOrAfter: at) {
        at = [edge.range.start, edge.range.start - 1, edge.range.end - 1, edge.range.end][i % 4]
      }
      if at < window.start { continue }
      if !same(window.query(at, coveringOnly: true), space.mapping(at: at)) { wrong += 1 }
      if !same(window.query(at, coveringOnly: false), space.mapping(atOrAfter: at)) { wrong += 1 }
    }
    #expect(wrong == 0)
    #expect(space.mapping(atOrAfter: end) == nil)
    #expect(space.mapping(at: Address.spaceEnd) == nil)
    #expect(space.mapping(atOrAfter: UInt64.max) == nil)
  }

  @Test(arguments: LockPolicy.allCases)
  func `C7 an intersection exists exactly where no-replace fails`(_ policy: LockPolicy) throws {
    var random = SeededRandom(for: "host intersections \(policy)")
    let window = try HostWindow(pages: 128)
    let space = try makeSpace(policy)
    for _ in 0..<40 {
      let at = window.start + random.below(124) * page
      let length = (1 + random.below(4)) * page
      #expect(run(.map(.fixed(at), length, .read, .private), window, space) == nil)
      #expect(run(.unmap(at + page, page), window, space) == nil)
    }
    var taken = 0
    for _ in 0..<5000 {
      let from = random.below(window.pages)
      let range = AddressRange(
        start: window.start + from * page,
        end: window.start + (from + 1 + random.below(min(6, window.pages - from))) * page)
      let found = space.mapping(intersecting: range)
      let result = window.map(.fixedNoReplace(range.start), range.length, .read, .private)
      switch result {
      case .success: #expect(window.unmap(range.start, range.length) == nil)
      case .failure(let error): #expect(error == .fileExists)
      }
      if case .success = result { #expect(found == nil) } else { taken += 1 }
      if case .failure = result {
        #expect(found.map { $0.range.overlaps(range) } == true)
        #expect(found?.range == window.query(range.start, coveringOnly: false)?.range)
      }
    }
    #expect(taken > 500 && taken < 4900)
  }
}
