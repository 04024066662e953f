// SPDX-License-Identifier: Apache-2.0
//
// Addresses of scripts, which mean the same in every helper.

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
public struct VerifyAddress: Sendable, Hashable, CustomStringConvertible {
  /// `nil` = absolute.
  public var window: VerifyWindow?
  /// Added with wrap-around.
  public var offset: UInt64

  public init(_ window: VerifyWindow?, _ offset: UInt64) {
    self.window = window
    self.offset = offset
  }

  public var description: String { (window.map { $0.name + "+" } ?? "") + hex(offset) }

  /// Reads what `description` wrote; `nil` = it is no address.
  init?(_ text: some StringProtocol) {
    if let window = VerifyWindow.allCases.first(where: { text.hasPrefix($0.name + "+") }) {
      guard let offset = UInt64(written: text.dropFirst(window.name.count + 1)) else { return nil }
      self.init(window, offset)
    } else {
      guard let offset = UInt64(written: text) else { return nil }
      self.init(nil, offset)
    }
  }
}

extension UInt64 {
  /// Reads a decimal number, or a hexadecimal one that begins with `0x`.
  init?(written text: some StringProtocol) {
    let value =
      text.hasPrefix("0x") ? UInt64(text.dropFirst(2), radix: 16) : UInt64(text, radix: 10)
    guard let value else { return nil }
    self = value
  }
}
