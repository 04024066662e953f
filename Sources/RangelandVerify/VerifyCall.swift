// SPDX-License-Identifier: Apache-2.0
//
// One call of a script: as data, and as the line of text that `--script` reads.

/// A stretch of the helper's address space that scripts map in.
public enum VerifyWindow: Int, CaseIterable, Sendable {
  /// High, where mappings without an address go first; longer than 16 MiB.
  case high
  /// Above the helper's heap; longer than 2 MiB.
  case heap
  /// Between 1 and 2 GiB; longer than 4 MiB.
  case low

  var name: String { "\(self)" }
}

/// An address relative to a window, so that a script means the same in every helper; or an absolute one.
public struct VerifyAddress: Sendable, Hashable {
  /// `nil` = absolute.
  public var window: VerifyWindow?
  /// Added with wrap-around.
  public var offset: UInt64

  public init(_ window: VerifyWindow?, _ offset: UInt64) {
    self.window = window
    self.offset = offset
  }
}

/// A system call or an access.
public struct VerifyCall: Sendable, Hashable, CustomStringConvertible {
  public enum Kind: String, CaseIterable, Sendable {
    case mmap, munmap, mprotect, madvise, load, store
  }

  public var kind: Kind
  public var address: VerifyAddress
  /// In bytes; of an access 1, 2, 4 or 8.
  public var length: UInt64
  /// `PROT_*` of mmap and mprotect.
  public var protection: UInt64 = 0
  /// `MAP_*` of mmap, the advice of madvise.
  public var flags: UInt64 = 0
  /// What a store writes.
  public var value: UInt64 = 0

  static var fixed: UInt64 { 0x10 }
  static var fixedNoReplace: UInt64 { 0x10_0000 }
  static var shared: UInt64 { 1 }
  static var `private`: UInt64 { 2 }
  static var anonymous: UInt64 { 0x20 }
  static var dontNeed: UInt64 { 4 }

  var isFixed: Bool { kind == .mmap && flags & (Self.fixed | Self.fixedNoReplace) != 0 }
  var isNoReplace: Bool { kind == .mmap && flags & Self.fixedNoReplace != 0 }
  var isAccess: Bool { kind == .load || kind == .store }

  public var description: String {
    func hex(_ value: UInt64) -> String { "0x" + String(value, radix: 16) }
    let at = (address.window.map { $0.name + "+" } ?? "") + hex(address.offset)
    let start = "\(kind.rawValue) \(at) \(hex(length))"
    return switch kind {
    case .mmap: "\(start) prot=\(protection) flags=\(hex(flags))"
    case .mprotect: "\(start) prot=\(protection)"
    case .madvise: "\(start) advice=\(flags)"
    case .store: "\(start) value=\(hex(value))"
    case .munmap, .load: start
    }
  }

  /// Reads a line that `description` wrote. Throws with the reason.
  public init(line: String) throws(VerifyError) {
    let words = line.split(separator: " ").map(String.init)
    guard let first = words.first, let kind = Kind(rawValue: first) else {
      throw VerifyError("not a call: '\(line)'")
    }
    let names: [String] =
      switch kind {
      case .mmap: ["prot", "flags"]
      case .mprotect: ["prot"]
      case .madvise: ["advice"]
      case .store: ["value"]
      case .munmap, .load: []
      }
    guard words.count == 3 + names.count else {
      throw VerifyError("'\(line)': \(first) has an address, a length and \(names)")
    }
    func number(_ text: some StringProtocol) throws(VerifyError) -> UInt64 {
      let value =
        text.hasPrefix("0x") ? UInt64(text.dropFirst(2), radix: 16) : UInt64(text, radix: 10)
      guard let value else { throw VerifyError("'\(line)': '\(text)' is not a number") }
      return value
    }
    self.kind = kind
    if let window = VerifyWindow.allCases.first(where: { words[1].hasPrefix($0.name + "+") }) {
      address = VerifyAddress(window, try number(words[1].dropFirst(window.name.count + 1)))
    } else {
      address = VerifyAddress(nil, try number(words[1]))
    }
    length = try number(words[2])
    for (name, word) in zip(names, words.dropFirst(3)) {
      guard word.hasPrefix(name + "=") else {
        throw VerifyError("'\(line)': \(name)= is missing")
      }
      let value = try number(word.dropFirst(name.count + 1))
      switch name {
      case "prot": protection = value
      case "flags", "advice": flags = value
      default: self.value = value
      }
    }
    try check(line)
  }

  init(
    _ kind: Kind, _ address: VerifyAddress, _ length: UInt64, protection: UInt64 = 0,
    flags: UInt64 = 0, value: UInt64 = 0
  ) {
    (self.kind, self.address, self.length) = (kind, address, length)
    (self.protection, self.flags, self.value) = (protection, flags, value)
  }

  /// What the Swift API of a space has words for.
  private func check(_ line: String) throws(VerifyError) {
    let known = Self.anonymous | Self.fixed | Self.fixedNoReplace
    let sharing = flags & ~known
    let isKnown =
      switch kind {
      case .mmap:
        protection < 8 && flags & Self.anonymous != 0
          && (sharing == Self.shared || sharing == Self.private)
      case .mprotect: protection < 8
      case .madvise: flags == Self.dontNeed
      case .load, .store: [1, 2, 4, 8].contains(length)
      case .munmap: true
      }
    if !isKnown { throw VerifyError("'\(line)': an address space does not know that yet") }
  }
}

/// Why something could not be verified at all.
public struct VerifyError: Error, Sendable, CustomStringConvertible {
  public var description: String
  public init(_ description: String) { self.description = description }
}
