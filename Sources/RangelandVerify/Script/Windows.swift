// SPDX-License-Identifier: Apache-2.0
//
// The windows, by `VerifyWindow.rawValue`, and what lies in them.

extension [KernelProcess.AddressPair] {
  /// The same call with absolute addresses.
  func resolve(_ call: VerifyCall) -> VerifyCall {
    var call = call
    call.address = VerifyAddress(nil, resolve(call.address))
    call.target = VerifyAddress(nil, resolve(call.target))
    return call
  }

  private func resolve(_ address: VerifyAddress) -> UInt64 {
    guard let window = address.window else { return address.offset }
    return self[window.rawValue].start &+ address.offset
  }

  /// Whether a call stays inside the windows, whatever becomes of it.
  func isHarmless(_ call: VerifyCall) -> Bool {
    let call = resolve(call)
    guard let reach = call.kind.definition.reach(call) else { return false }
    return reach.allSatisfy(contains)
  }

  /// Whether a range lies in one window.
  func contains(_ range: KernelProcess.AddressPair) -> Bool {
    contains { $0.start <= range.start && range.end <= $0.end }
  }
}
