// SPDX-License-Identifier: Apache-2.0
//
// One call of a script: as data, and as the line of text that `--script` reads.

/// A system call or an access.
public struct VerifyCall: Sendable, Hashable, CustomStringConvertible {
  public var kind: Kind
  /// The thread that makes the call, of a script with several.
  public var thread = 0
  /// The space that the call is made in: 0 is the first, others are forks.
  public var space = 0
  public var address: VerifyAddress
  /// In bytes; of an access 1, 2, 4 or 8.
  public var length: UInt64
  /// `PROT_*`.
  public var protection: UInt64 = 0
  /// The flags of a call, or the advice of madvise.
  public var flags: UInt64 = 0
  /// What a store writes, or another number of a call.
  public var value: UInt64 = 0
  /// A second length.
  public var newLength: UInt64 = 0
  /// A second address.
  public var target = VerifyAddress(nil, 0)

  static var fixed: UInt64 { 0x10 }
  static var fixedNoReplace: UInt64 { 0x10_0000 }
  static var shared: UInt64 { 1 }
  static var `private`: UInt64 { 2 }
  static var typeMask: UInt64 { 15 }
  static var anonymous: UInt64 { 0x20 }

  var isFixed: Bool { kind == .mmap && flags & (Self.fixed | Self.fixedNoReplace) != 0 }
  var isNoReplace: Bool { kind == .mmap && flags & Self.fixedNoReplace != 0 }
  var isAccess: Bool { kind == .load || kind == .store }

  init(
    _ kind: Kind, _ address: VerifyAddress, _ length: UInt64, protection: UInt64 = 0,
    flags: UInt64 = 0, value: UInt64 = 0
  ) {
    (self.kind, self.address, self.length) = (kind, address, length)
    (self.protection, self.flags, self.value) = (protection, flags, value)
  }

  public var description: String {
    var text = thread == 0 ? "" : "@\(thread) "
    if space != 0 { text += "%\(space) " }
    text += "\(kind.rawValue) \(address) \(hex(length))"
    for field in kind.definition.fields {
      switch field.content {
      case .number(let path, let isHex):
        text += " \(field.name)=" + (isHex ? hex(self[keyPath: path]) : "\(self[keyPath: path])")
      case .address(let path): text += " \(field.name)=\(self[keyPath: path])"
      }
    }
    return text
  }

  /// Reads a line that `description` wrote. Throws with the reason.
  public init(line: String) throws(VerifyError) {
    var words = line.split(separator: " ").map(String.init)
    var thread = 0
    if let first = words.first, first.hasPrefix("@") {
      guard let number = Int(first.dropFirst()), 0..<Verification.mostThreads ~= number else {
        throw VerifyError("'\(line)': '\(first)' is no thread")
      }
      thread = number
      words.removeFirst()
    }
    var space = 0
    if let first = words.first, first.hasPrefix("%") {
      guard let number = Int(first.dropFirst()), 0..<SpaceFamily.mostMembers ~= number else {
        throw VerifyError("'\(line)': '\(first)' is no space")
      }
      space = number
      words.removeFirst()
    }
    guard let first = words.first, let kind = Kind(rawValue: first) else {
      throw VerifyError("not a call: '\(line)'")
    }
    let fields = kind.definition.fields
    guard words.count == 3 + fields.count else {
      throw VerifyError(
        "'\(line)': \(first) has an address, a length and \(fields.map(\.name))")
    }
    guard let address = VerifyAddress(words[1]) else {
      throw VerifyError("'\(line)': '\(words[1])' is not an address")
    }
    guard let length = UInt64(written: words[2]) else {
      throw VerifyError("'\(line)': '\(words[2])' is not a number")
    }
    self.init(kind, address, length)
    self.thread = thread
    self.space = space
    for (field, word) in zip(fields, words.dropFirst(3)) {
      guard word.hasPrefix(field.name + "=") else {
        throw VerifyError("'\(line)': \(field.name)= is missing")
      }
      let text = word.dropFirst(field.name.count + 1)
      switch field.content {
      case .number(let path, _):
        guard let number = UInt64(written: text) else {
          throw VerifyError("'\(line)': '\(text)' is not a number")
        }
        self[keyPath: path] = number
      case .address(let path):
        guard let address = VerifyAddress(text) else {
          throw VerifyError("'\(line)': '\(text)' is not an address")
        }
        self[keyPath: path] = address
      }
    }
    if !kind.definition.isKnown(self) {
      throw VerifyError("'\(line)': an address space does not know that yet")
    }
  }
}

/// Why something could not be verified at all.
public struct VerifyError: Error, Sendable, CustomStringConvertible {
  public var description: String
  public init(_ description: String) { self.description = description }
}
